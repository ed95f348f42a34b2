from .page import arguments_of as arguments_of
from .page import page_of as page_of
from .recording import record as record
