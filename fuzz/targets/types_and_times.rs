//! `types_and_times` of `featureflight_tests::fuzz::targets`, for libFuzzer.

#![no_main]

featureflight_fuzz::target!(types_and_times);
