"""Official sslbench plugins, written exactly as an outsider would write them."""
