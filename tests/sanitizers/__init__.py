"""The native runtime under AddressSanitizer and UndefinedBehaviourSanitizer, with damaged programs."""
