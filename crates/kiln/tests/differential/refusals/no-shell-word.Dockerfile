FROM scratch
EXPOSE ${
