"""Which features drive the models of a finished run: permutation importance and integrated gradients."""
