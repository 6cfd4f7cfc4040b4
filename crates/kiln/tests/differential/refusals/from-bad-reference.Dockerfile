FROM Upper/Case
