"""sslbench: benchmark self-supervised vision methods with one shared runner."""

__version__ = "0.1.0"
