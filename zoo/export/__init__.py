"""Pretrained models for other programs, one file for each."""
