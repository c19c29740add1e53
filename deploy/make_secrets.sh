#!/usr/bin/env bash
# Makes what deploy/secrets lacks: passwords, API keys, signing keys. Shows the secret of the key
# `chat`, once. Needs `llm-auction` on the path, or in LLM_AUCTION.
set -euo pipefail
cd "$(dirname "$0")"
llm_auction=${LLM_AUCTION:-llm-auction}
# Only root and the owner reach the folder; the files are open, as containers run as other users.
install --directory --mode 0700 secrets
umask 022

for password in store_password grafana_password; do
    [ -s secrets/$password ] || openssl rand -hex 24 > secrets/$password
done
[ -s secrets/signing_secret ] || openssl rand -hex 32 > secrets/signing_secret
[ -s secrets/signing_keys ] || $llm_auction receipt new-key > secrets/signing_keys
if [ ! -s secrets/metrics_key ]; then
    $llm_auction keys new prometheus --scope metrics --file secrets/api_keys > secrets/metrics_key
fi
if ! grep --quiet '^chat ' secrets/api_keys; then
    echo "The key for chat front ends; it is not kept:"
    $llm_auction keys new chat --scope respond --file secrets/api_keys
fi
chmod 0444 secrets/*
chmod 0644 secrets/api_keys
