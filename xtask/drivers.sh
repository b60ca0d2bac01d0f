#!/usr/bin/env bash
# drivers.sh 25|26|swiftshader DIR: Vulkan drivers unpacked in DIR; nothing system-wide changes. Debian 12 on x86-64 with
# apt only; fails elsewhere.
#   25   from bookworm-backports. LD_LIBRARY_PATH=DIR/lib VK_DRIVER_FILES=DIR/lvp.json PROGRAM runs on lavapipe;
#        DIR/radv.json is RADV, whose later versions need a GPU.
#   26   from trixie-backports, with the C library it needs: VK_DRIVER_FILES=DIR/lvp.json DIR/run PROGRAM. DIR has also
#        nouveau.json, intel.json, freedreno.json and asahi.json.
#   swiftshader   Chromium's: VK_DRIVER_FILES=DIR/swiftshader.json PROGRAM.
set -euo pipefail
case ${1:-} in
  25) suites="bookworm bookworm-backports" drivers="lvp radeon:radv" ;;
  26) suites="trixie trixie-backports" drivers="lvp nouveau intel freedreno asahi" ;;
  swiftshader) suites="bookworm" drivers="" ;;
  *) echo "usage: drivers.sh 25|26|swiftshader DIR" >&2; exit 2 ;;
esac
dir=$(mkdir -p "${2:?folder}" && cd "$2" && pwd)
apt=$dir/apt debs=$dir/debs
mkdir -p "$apt"/{lists/partial,cache/archives/partial,state,etc/preferences.d,etc/apt.conf.d} "$debs"
: >"$apt/state/status"
mirror=$(apt-get indextargets --format '$(SITE) $(RELEASE)' 2>/dev/null | awk '$2 == "bookworm" { print $1; exit }')
[ -n "$mirror" ] || { echo "no Debian 12 package source is set up" >&2; exit 1; }
for suite in $suites; do
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror%/} $suite main"
done >"$apt/etc/sources.list"
options=(-qq -oDir::Etc="$apt/etc" -oDir::Etc::sourcelist="$apt/etc/sources.list" -oDir::Etc::sourceparts=/dev/null
  -oDir::State="$apt/state" -oDir::State::status="$apt/state/status" -oDir::State::lists="$apt/lists"
  -oDir::Cache="$apt/cache" -oAPT::Install-Recommends=false -oAPT::Sandbox::User=root)
apt-get "${options[@]}" update
if [ "$1" = 25 ]; then
  packages=({mesa-vulkan-drivers,libdrm2,libdrm-amdgpu1}/bookworm-backports)
elif [ "$1" = swiftshader ]; then
  packages=(chromium-common)
else
  # To an empty system everything down to the C library is new.
  mapfile -t packages < <(apt-get "${options[@]}" -s install -t trixie-backports mesa-vulkan-drivers libvulkan1 libc6 |
    awk '/^Inst/ { print $2 }')
fi
(cd "$debs" && apt-get "${options[@]}" -t "${suites##* }" download "${packages[@]}")
for deb in "$debs"/*.deb; do dpkg -x "$deb" "$dir/root"; done
rm -rf "$dir/lib" && mkdir -p "$dir/lib"
find "$dir/root" \( -path '*/x86_64-linux-gnu/*' -o -name 'ld-linux-x86-64.so*' -o -name libvk_swiftshader.so \) \
  \( -name '*.so' -o -name '*.so.*' \) -exec cp -Lf {} "$dir/lib/" \;
rm -rf "$apt" "$debs" "$dir/root"
icd() { # NAME API LIBRARY
  printf '{"ICD":{"api_version":"%s","library_path":"%s"},"file_format_version":"1.0.1"}\n' "$2" "$dir/lib/$3" \
    >"$dir/$1.json"
}
for driver in $drivers; do icd "${driver#*:}" 1.4.0 "libvulkan_${driver%:*}.so"; done
if [ "$1" = swiftshader ]; then icd swiftshader 1.3.0 libvk_swiftshader.so; fi
if [ "$1" = 26 ]; then
  printf '#!/bin/sh\nexec "%s" --library-path "%s" "$@"\n' "$dir/lib/ld-linux-x86-64.so.2" "$dir/lib" >"$dir/run"
  chmod +x "$dir/run"
fi
