/** Tests that cannot pass on the pretended device, by file and full name, with the reason. */
export const exclusions: readonly { file: string; tests: readonly string[]; reason: string }[] = []
