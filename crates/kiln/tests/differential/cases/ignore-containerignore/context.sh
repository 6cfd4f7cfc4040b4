echo 1 >keep; echo 2 >drop; echo 3 >other; printf 'drop\n' >.containerignore; printf 'other\n' >.dockerignore
