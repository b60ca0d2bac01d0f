#!/usr/bin/env bash
# mesa25.sh DIR: lavapipe of Mesa 25 from bookworm-backports, unpacked in DIR; nothing system-wide changes.
# Debian 12 on x86-64 with apt only; fails elsewhere.
set -euo pipefail
dir=$(mkdir -p "${1:?folder}" && cd "$1" && pwd)
apt=$dir/apt debs=$dir/debs
mkdir -p "$apt"/{lists/partial,cache/archives/partial,state,etc/preferences.d,etc/apt.conf.d} "$debs"
: >"$apt/state/status"
mirror=$(apt-get indextargets --format '$(SITE) $(RELEASE)' 2>/dev/null | awk '$2 == "bookworm" { print $1; exit }')
[ -n "$mirror" ] || { echo "no Debian 12 package source is set up" >&2; exit 1; }
for suite in bookworm bookworm-backports; do
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror%/} $suite main"
done >"$apt/etc/sources.list"
options=(-qq -oDir::Etc="$apt/etc" -oDir::Etc::sourcelist="$apt/etc/sources.list" -oDir::Etc::sourceparts=/dev/null
  -oDir::State="$apt/state" -oDir::State::status="$apt/state/status" -oDir::State::lists="$apt/lists"
  -oDir::Cache="$apt/cache" -oAPT::Sandbox::User=root)
apt-get "${options[@]}" update
(cd "$debs" && apt-get "${options[@]}" download {mesa-vulkan-drivers,libdrm2,libdrm-amdgpu1}/bookworm-backports)
for deb in "$debs"/*.deb; do dpkg -x "$deb" "$dir/root"; done
rm -rf "$dir/lib" && mkdir -p "$dir/lib"
find "$dir/root" -path '*/x86_64-linux-gnu/*' \( -name '*.so' -o -name '*.so.*' \) -exec cp -L {} "$dir/lib/" \;
rm -rf "$apt" "$debs" "$dir/root"
printf '{"ICD":{"api_version":"1.4.0","library_path":"%s"},"file_format_version":"1.0.1"}\n' \
  "$dir/lib/libvulkan_lvp.so" >"$dir/lvp.json"
