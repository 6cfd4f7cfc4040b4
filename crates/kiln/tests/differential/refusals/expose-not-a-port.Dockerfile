FROM scratch
EXPOSE http
