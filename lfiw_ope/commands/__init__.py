"""The commands of `lfiw-ope`, one file each."""
