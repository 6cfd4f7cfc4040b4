mkdir d; echo f >d/f; ln -s d/f l; ln -s d ld
