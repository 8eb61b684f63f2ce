"""The command line: one file a command. Nothing here imports torch, fairseq2, pyarrow or numpy before a command
runs."""
