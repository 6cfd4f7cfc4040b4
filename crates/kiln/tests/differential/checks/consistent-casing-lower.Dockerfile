from scratch
label a=b
WORKDIR /x
