/** Tests that cannot pass on the pretended device, by file, each with the reason. */
export const exclusions: readonly { file: string; tests: 'all' | readonly string[]; reason: string }[] = []
