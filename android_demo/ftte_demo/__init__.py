"""The FTTE demo: a phone that trains, and shows what that means."""
