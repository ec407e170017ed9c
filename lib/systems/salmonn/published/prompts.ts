import { SPEECH_BLOCK } from '../data/prompt.js'
import { SalmonnPrompts } from '../data/prompt-table.js'

const speechPrompts = (...texts: string[]) => texts.map((text) => `${SPEECH_BLOCK} ${text}`)

/** Default training prompts, with voxtorch's own texts for the published tasks. */
export const SALMONN_TRAIN_PROMPTS = new SalmonnPrompts(
  {
    asr: speechPrompts(
      'Write down what the speaker says.',
      'What words are spoken here?',
      'Give a transcript of this recording.',
      'Turn the speech into text.',
    ),
    asr_zh: speechPrompts('请写出这段录音里说的话。', '把这段语音转成文字。'),
    asr_de: speechPrompts('Schreibe auf, was gesagt wird.', 'Gib den Wortlaut der Aufnahme wieder.'),
    translation_ec: speechPrompts('Translate the speech into Chinese.', '把这段英语语音翻译成中文。'),
    audiocaption: speechPrompts('Describe what can be heard.', 'Say in one sentence what happens in this recording.'),
    QA: speechPrompts('{}'),
    inference_QA: speechPrompts('{}'),
    gender_QA: speechPrompts('{}'),
    gender_recognition: speechPrompts('Is the speaker a man or a woman?', 'Name the gender of the voice.'),
    phone_recognition: speechPrompts('Give the phonemes of the speech.', 'Which phonemes are spoken?'),
    speech_separation: speechPrompts('Several people talk at once. Write down what each says.'),
    emotion_recognition: speechPrompts(
      'Which emotion does the voice show? Answer with one word.',
      "Name the speaker's emotion.",
    ),
    music_description: speechPrompts(
      'Describe this piece of music.',
      'What kind of music is this, and how is it played?',
    ),
    speaker_verification: speechPrompts('Do both parts come from the same speaker? Answer yes or no.'),
    audio_story_telling: speechPrompts('Tell a story that fits these sounds.'), // language: prompt
    speaker_diarization_asr: speechPrompts('Write down who says what, speaker by speaker.'),
    task1_emotional_trajectory: speechPrompts('{}'),
    task2_emotional_reasoning: speechPrompts('{}'),
    task3_empathy: speechPrompts('{}'),
  },
  'the default prompts',
)

/** Default test prompts, one for each task. */
export const SALMONN_TEST_PROMPTS = new SalmonnPrompts(
  {
    ...Object.fromEntries(SALMONN_TRAIN_PROMPTS.tasks.map((task) => [task, SALMONN_TRAIN_PROMPTS.pick(task)])),
    speech_query: speechPrompts('Answer the question that is asked in the recording.')[0] as string, // language: prompt
    slot_filling: speechPrompts('{}')[0] as string,
    keywords: speechPrompts('List the key words of the speech.')[0] as string,
    lyrics_recognition: speechPrompts('Write down the words of the song.')[0] as string,
    translation_en2ja: speechPrompts('Translate the speech into Japanese.')[0] as string,
    translation_en2de: speechPrompts('Translate the speech into German.')[0] as string,
  },
  'the default test prompts',
)
