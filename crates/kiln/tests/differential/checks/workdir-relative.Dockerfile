FROM scratch
WORKDIR app
WORKDIR src
FROM scratch
WORKDIR /abs
WORKDIR rel
