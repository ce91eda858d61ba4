"""What each verb does, as one library call: parts, loop and ledger wired together."""
