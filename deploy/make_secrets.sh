#!/usr/bin/env bash
# Makes what deploy/secrets lacks: passwords, API keys, signing keys. Shows the secrets of the keys
# `chat` and `operator`, once. Needs `llm-auction` on the path, or in LLM_AUCTION.
set -euo pipefail
llm_auction=${LLM_AUCTION:-llm-auction} # maybe a path from where we are: so stay there
secrets=$(dirname "$0")/secrets
# Only root and the owner reach the folder; the files are open, as containers run as other users.
install --directory --mode 0700 "$secrets"
umask 022
trap 'rm -f "$secrets/.partial"' EXIT

# make FILE COMMAND...: what the command prints, if there is no file yet; no file if it fails.
make() {
    if [ ! -s "$secrets/$1" ]; then
        "${@:2}" > "$secrets/.partial"
        mv -f "$secrets/.partial" "$secrets/$1"
    fi
}

# Prometheus's operator sends the key on as it stands, and a header holds no line break.
without_newline() {
    local text
    text=$("$@")
    printf %s "$text"
}

# show_key NAME SCOPE WHOSE: makes the key and shows its secret, if there is none of that name yet.
show_key() {
    if ! grep --quiet "^$1 " "$secrets/api_keys"; then
        echo "The key for $3; it is not kept:"
        $llm_auction keys new "$1" --scope "$2" --file "$secrets/api_keys"
    fi
}

make store_password openssl rand -hex 24
make grafana_password openssl rand -hex 24
make signing_secret openssl rand -hex 32
make signing_keys $llm_auction receipt new-key
make metrics_key without_newline \
    $llm_auction keys new prometheus --scope metrics --file "$secrets/api_keys"
show_key chat respond "chat front ends"
show_key operator admin "operators (ads, budgets, reports)"
chmod 0444 "$secrets"/*
chmod 0644 "$secrets/api_keys"
