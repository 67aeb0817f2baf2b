"""How truth is written: state and receipt in one commit, landed once or not at all."""
