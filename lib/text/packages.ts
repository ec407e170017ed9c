import * as tokenizers from '@huggingface/tokenizers'

// The declarations of the package import each other without file extensions, which Node's resolution of types does not
// follow. What is used of it is declared here.

interface Split {
  pattern: unknown
}

export const { SplitPreTokenizer } = tokenizers as unknown as { SplitPreTokenizer: new (config: object) => Split }
