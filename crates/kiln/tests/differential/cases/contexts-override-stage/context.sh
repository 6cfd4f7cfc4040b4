mkdir d; echo from-context >d/f
