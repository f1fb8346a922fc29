#!/usr/bin/env bash
# The trainer as an AAR that an Android app of any language depends on. Needs the Android SDK and NDK (ANDROIDSDK,
# ANDROIDNDK) and python-for-android 2026.5.9; run from the repository's root. The AAR is in dist-aar.
set -euo pipefail
executorch=$(sed -n 's/^EXECUTORCH_VERSION = "\(.*\)"$/\1/p' mobile_sdk/manifest.py)
stage=$(mktemp -d)
mkdir -p dist-aar
cp examples/kotlin/trainer.py "$stage/"
cp -r mobile_sdk "$stage/mobile_sdk"
rm -rf "$stage"/mobile_sdk/{native/lib,java,build} # the desktop's runtime, and what gradle compiles
options=(
    --private "$stage" --package org.example.trainer --name Trainer --version 0.1.0
    --bootstrap service_library --requirements python3,pyjnius,android,numpy,websockets,certifi
    --arch arm64-v8a --arch armeabi-v7a --ndk-api 26 --android-api 36 --minsdk 26
    --service Trainer:trainer.py:foreground:foregroundServiceType=dataSync
    --hook "$PWD/examples/kotlin/hook.py" --local-recipes "$PWD/android_demo/package/recipes"
    --add-source "$PWD/mobile_sdk/java" --enable-androidx
    --depend "org.pytorch:executorch-android:$executorch"
    --depend com.facebook.fbjni:fbjni:0.7.0 --depend com.facebook.soloader:nativeloader:0.10.5
)
if [ "${1:-}" = --print ]; then
    printf '%s\n' "${options[@]}"
else
    cd dist-aar && p4a aar --dist_name trainer "${options[@]}"
fi
