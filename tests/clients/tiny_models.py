"""Small models of `transformers` with random weights: a classifier of texts and one of pictures. Argument: the folder."""

import pathlib
import sys

import torch
import transformers

root = pathlib.Path(sys.argv[1])
torch.manual_seed(1)

words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "i", "like", "this", "hate", "."]
text = root / "tiny-text"
text.mkdir(parents=True)
(text / "vocab.txt").write_text("\n".join(words) + "\n")
transformers.BertTokenizerFast(str(text / "vocab.txt")).save_pretrained(text)
small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
config = transformers.BertConfig(
    vocab_size=len(words), max_position_embeddings=32, id2label={0: "bad", 1: "good"}, **small
)
transformers.BertForSequenceClassification(config).save_pretrained(text)

vision = root / "tiny-vision"
config = transformers.ViTConfig(image_size=32, patch_size=16, id2label={0: "cat", 1: "dog"}, **small)
transformers.ViTForImageClassification(config).save_pretrained(vision)
transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(vision)
