src/b.c
