echo 1 >keep; echo 2 >drop; echo 3 >other; printf 'drop\nmine\n' >mine; printf 'other\n' >.dockerignore
