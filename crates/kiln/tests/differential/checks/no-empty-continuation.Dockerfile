FROM scratch
LABEL a=1 \

  b=2
LABEL c=3 \
# fine
  d=4
