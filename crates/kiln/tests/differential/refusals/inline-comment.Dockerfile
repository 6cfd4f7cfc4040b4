FROM scratch
COPY f ./ # comment
