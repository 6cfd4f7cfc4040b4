FROM scratch
LABEL a=1 \
  b=$undefined \
  c=3
ENV \
  x y
