"""Networks as files that timm, torchvision, transformers, safetensors or onnxruntime load by their own means."""
