"""Running a user's model as it is: without recomputation or autocast, with its draws given, in double precision."""
