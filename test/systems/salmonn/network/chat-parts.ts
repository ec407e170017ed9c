import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { DecoderLM, Tokenizer, WhisperEncoder, writeJson } from '../../../../lib/index.js'

/** ChatML, which says something of its own where nobody speaks for the system. */
const CHAT =
  "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nHi<|im_end|>\n{% endif %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"

/** The characters that GPT-2 writes bytes with. */
function byteCharacters(): string[] {
  const plain = (byte: number) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte !== 173 && byte <= 255)
  let next = 256
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(plain(byte) ? byte : next++))
}

/**
 * Writes a tiny Whisper encoder and a tiny language model that chats, as a GGUF file with its tokenizer: what is published of
 * Whisper base and SmolLM2, in small and random. Each byte is a token, and `<|im_start|>` is the first of a text.
 */
export async function writeChatParts(folder: string): Promise<{ whisper: string; llm: string }> {
  const special = ['<|endoftext|>', '<|im_start|>', '<|im_end|>']
  const vocab = Object.fromEntries([...special, ...byteCharacters()].map((token, id) => [token, id]))
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true }
  mkdirSync(join(folder, 'tokenizer'), { recursive: true })
  await writeJson(join(folder, 'tokenizer/tokenizer.json'), {
    version: '1.0',
    added_tokens: special.map((content, id) => ({ id, content, special: true, normalized: false })),
    pre_tokenizer: byteLevel,
    decoder: byteLevel,
    model: { type: 'BPE', vocab, merges: [] },
  })
  await writeJson(join(folder, 'tokenizer/tokenizer_config.json'), {
    tokenizer_class: 'GPT2Tokenizer',
    bos_token: '<|im_start|>',
    eos_token: '<|im_end|>',
    pad_token: '<|im_end|>',
    unk_token: '<|endoftext|>',
    chat_template: CHAT,
  })
  const tokenizer = await Tokenizer.fromPretrained(join(folder, 'tokenizer'))
  using whisper = WhisperEncoder.fromConfig(
    {
      dModel: 16,
      encoderLayers: 1,
      encoderAttentionHeads: 2,
      encoderFfnDim: 32,
      decoderAttentionHeads: 2,
      initStd: 0.2,
    },
    { seed: 1 },
  )
  await whisper.save(join(folder, 'whisper'))
  using llm = DecoderLM.fromConfig(
    {
      vocabSize: tokenizer.vocabSize,
      hiddenSize: 32,
      intermediateSize: 64,
      numHiddenLayers: 2,
      numAttentionHeads: 4,
      numKeyValueHeads: 2,
      maxPositionEmbeddings: 1024,
      initializerRange: 0.1,
      tieWordEmbeddings: true,
    },
    { seed: 2 },
  )
  await llm.saveGguf(join(folder, 'chat.gguf'), { tokenizer, type: 'Q8_0' })
  return { whisper: join(folder, 'whisper'), llm: join(folder, 'chat.gguf') }
}
