"""Descriptions of tables, one TOML file each: `sslbench table NAME`."""
