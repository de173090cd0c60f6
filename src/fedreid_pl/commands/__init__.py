"""The commands of `fedreid-pl`, one file each: a function from the words that follow its name to an exit code."""
