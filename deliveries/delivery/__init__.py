"""The stages between a due row and its recorded result: claim, begin, send, settle, sweep. Called by the tasks and the relay."""
