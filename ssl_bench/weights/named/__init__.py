"""Weights by name: `dino:deit_s16`, `timm:NAME.TAG`, `torchvision:WEIGHTS`, `hf:OWNER/NAME`, or an address."""
