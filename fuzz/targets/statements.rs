//! `statements` of `featureflight_tests::fuzz::targets`, for libFuzzer.

#![no_main]

featureflight_fuzz::target!(statements);
