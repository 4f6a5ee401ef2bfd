"""Loggers: where values go while a run trains, one package a file."""
