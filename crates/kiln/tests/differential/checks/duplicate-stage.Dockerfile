FROM scratch AS a
LABEL x=1
FROM scratch AS a
FROM scratch AS A
