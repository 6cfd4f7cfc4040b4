FROM scratch
ONBUILD CMD shell form
ONBUILD ENV a b
ONBUILD LABEL x=$undefined
