"""From a task and a plan to a program: the step, its trace, its files, and what proves it right."""
