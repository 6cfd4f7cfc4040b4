FROM scratch
COPY <<EOF /f
$undefined
EOF
LABEL a=$undefined
