"""Official sslbench plugins, written exactly as third-party plugins are."""
