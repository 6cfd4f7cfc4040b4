echo 1 >keep; echo 2 >drop; printf 'drop\n**/drop\n' >.dockerignore
