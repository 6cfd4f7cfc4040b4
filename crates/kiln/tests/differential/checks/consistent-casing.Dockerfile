FROM scratch
label a=b
Label c=d
WORKDIR /x
