# escape=
FROM scratch
