FROM scratch
COPY ../outside /x
