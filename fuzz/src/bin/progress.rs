#![doc = "One target, for libFuzzer; see the library."]
#![cfg_attr(feature = "libfuzzer", no_main)]

mangrove_fuzz::program!();
